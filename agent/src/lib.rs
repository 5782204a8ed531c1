//! Infratrack.
