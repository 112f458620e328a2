"""skorch's callbacks that look at epochs only, for fits that are trained together."""
