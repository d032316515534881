"""The HTTP interface: routes, schemas, middleware and problem answers."""
