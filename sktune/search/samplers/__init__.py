"""Who chooses the candidates of a search: samplers that are asked for batches and told scores."""
