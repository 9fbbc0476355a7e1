//! Rooms over WebSockets.
