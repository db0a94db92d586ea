"""The admin router: metrics, health, status."""
