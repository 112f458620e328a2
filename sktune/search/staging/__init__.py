"""What a search in stages consists of: the stages, their spaces, and the candidates of each."""
