//! What runs inside a node: applies a node config and supervises its services.
