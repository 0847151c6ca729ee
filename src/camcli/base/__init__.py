"""Plain Python that knows neither torch nor pictures."""
