"""Engines behind an API: protocols, retries, rate limits, budget, prices and cache."""
