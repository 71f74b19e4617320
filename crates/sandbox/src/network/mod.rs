//! The network of sandboxes: one router for all of them, and one way out.
//!
//! ```text
//!  slot   eth0 ----- s7 +--------+ up ------- pn-NAME   host
//!  slot   eth0 ----- s8 | router |  uplink, masqueraded on both sides
//!  slot   eth0 ----- s9 +--------+
//!                         lo: the gateway's address, port 8080
//! ```
//!
//! The [`Router`] is a network namespace of its own. Every slot has a pair of virtual devices with one end
//! there, an address, and a default route; so all slots look alike, and what a function may reach is decided
//! by the router's rules for packets, which end with it. A function that may leave is in the set `out`.
//!
//! The [`Uplink`] joins the router and the host. Towards the host all functions have one address, so the
//! host knows nothing of theirs, and its one table is small. Without an uplink (an ordinary user has none)
//! the gateway is all that functions reach.
//!
//! The router's namespace is kept by a process that does nothing else ([`holder`]), so replicas keep their
//! network while spawner and server are replaced. If that process is ended, the devices go with the
//! namespace: replicas that run have no network any more and must be replaced.

mod holder;
mod links;
mod netlink;
mod nft;
pub mod plan;
mod router;
mod uplink;
mod wiring;

pub(crate) use holder::user_namespace;
pub use holder::{HOLDER, park};
pub use router::{Attachment, Policy, Router};
pub use uplink::{Obstacle, Uplink};
pub use wiring::Standing;
pub(crate) use wiring::{Renewed, Wiring};
