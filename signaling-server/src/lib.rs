//! Rooms over WebSockets.

pub mod config;
