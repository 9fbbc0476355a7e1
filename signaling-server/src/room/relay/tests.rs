//! Rooms in virtual time, with real Loro documents at their ends and a store that does what it is told.

mod documents;
mod harm;
mod logs;
mod presence;
mod returning;
mod storing;
mod world;
