//! The fuzz targets of `wire`, for libFuzzer.
#![forbid(unsafe_code)]

pub mod targets;
