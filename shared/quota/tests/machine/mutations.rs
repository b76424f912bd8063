//! The list of mutations cannot rot.
