"""Will this flight arrive late? The example project."""
