//! The grounds that nodes run on.
