//! A peer that keeps a Loro document in step over a hub, the local disk and WebRTC.

pub mod adapter;
pub mod document;
pub mod engine;
