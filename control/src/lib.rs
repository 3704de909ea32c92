//! The control core.
