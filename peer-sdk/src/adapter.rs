//! The ways to other peers and to the local disk.
