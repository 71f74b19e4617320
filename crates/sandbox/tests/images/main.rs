//! The image store against archives built in memory: every form it must read, every trick it must refuse.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod archive;
mod attacks;
mod collecting;
mod forms;
mod interrupted;
mod ordinary_user;
mod pulling;
mod random;
mod squashed;
mod unpacking;
