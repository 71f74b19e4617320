//! Real sandboxes, by the real spawner and init. Run as root (namespaces, control groups, id ranges) or
//! as an ordinary user; needs Debian's busybox-static.

#![allow(clippy::unwrap_used)]

mod bounds;
mod calls;
mod delegated;
mod fences;
mod host;
mod leaks;
mod life;
mod masks;
mod on_host;
mod ordinary;
mod slots;
mod survival;
