"""The views: recipes, sampled parameters, and the back ends that compute pixels."""
