"""What tenants of PostgreSQL hold, told so that it can be compared."""
