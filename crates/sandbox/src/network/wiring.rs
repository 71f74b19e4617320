//! The network as a spawner has it: the router and the way out, found again or made, and what of it is not
//! to be had here.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Attachment, Policy, Router, Uplink, plan::Place};
use crate::failed::Doing as _;

/// How the network stands, for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Why functions do not reach the platform as `gateway`, if so.
    pub no_gateway: Option<String>,
    /// Why no function can leave, if so.
    pub no_way_out: Option<String>,
    /// What may be in the way outside of Pinnace, a sentence each.
    pub obstacles: Vec<String>,
}

impl Standing {
    /// Whether something is not to be had that there was.
    fn lacks(&self, before: &Self) -> bool {
        let is_lost =
            |before: &Option<String>, now: &Option<String>| before.is_none() && now.is_some();
        is_lost(&before.no_gateway, &self.no_gateway)
            || is_lost(&before.no_way_out, &self.no_way_out)
    }
}

/// The router and its uplink.
#[derive(Debug)]
pub(crate) struct Wiring {
    dir: PathBuf,
    /// Name of this Pinnace.
    name: String,
    /// The program that keeps the router's namespace.
    program: OwnedFd,
    ordinary_user: bool,
    policy: Policy,
    router: Option<Router>,
    /// How it stood when the server asked for it.
    first: Standing,
    /// How it stands.
    now: Standing,
    /// When it is tried again to have what there was at first.
    retry_at: Option<Instant>,
}

/// A network that took the place of another one.
#[derive(Debug)]
pub(crate) struct Renewed {
    /// How it stands.
    pub(crate) standing: Standing,
    /// The gateway's listener, if it is a new one.
    pub(crate) listener: Option<TcpListener>,
    /// Whether what was attached to the network before is attached to this one.
    pub(crate) keeps_slots: bool,
}

/// Wait before what could not be made again is tried again.
const RETRY: Duration = Duration::from_secs(2);

const AS_ROOT: &str = "run Pinnace as root to have it";

impl Wiring {
    /// No network yet.
    pub(crate) fn new(dir: PathBuf, name: String, program: OwnedFd, ordinary_user: bool) -> Self {
        Self {
            dir,
            name,
            program,
            ordinary_user,
            policy: Policy::default(),
            router: None,
            first: Standing::default(),
            now: Standing::default(),
            retry_at: None,
        }
    }

    /// Finds or makes the network, for slots that are made from now on. The listener is a new one, unless
    /// somebody has the gateway's already.
    pub(crate) fn set_up(&mut self, policy: Policy) -> (Standing, Option<TcpListener>) {
        self.policy = policy;
        self.retry_at = None;
        let (standing, listener) = self.find();
        self.first = standing.clone();
        self.now = standing.clone();
        (standing, listener)
    }

    fn find(&mut self) -> (Standing, Option<TcpListener>) {
        self.router = None;
        let mut standing = Standing::default();
        let listener = match self.find_or_make() {
            Ok(mut router) => {
                self.way_out(&mut router, &mut standing);
                let listener = router.listener();
                self.router = Some(router);
                listener
            }
            Err(error) => {
                standing.no_way_out = Some("there is no network for functions".to_owned());
                Err(error)
            }
        };
        match listener {
            Ok(listener) => (standing, Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => (standing, None),
            Err(error) => {
                standing.no_gateway = Some(error.to_string());
                (standing, None)
            }
        }
    }

    fn find_or_make(&self) -> io::Result<Router> {
        std::fs::create_dir_all(&self.dir).doing(|| format!("make {}", self.dir.display()))?;
        match Router::adopt(&self.dir, &self.policy)? {
            Some(router) => Ok(router),
            None => Router::make(&self.dir, self.program.as_fd(), &self.policy),
        }
    }

    fn way_out(&self, router: &mut Router, standing: &mut Standing) {
        if self.ordinary_user {
            standing.no_way_out =
                Some(format!("an ordinary user cannot join it to the host's network; {AS_ROOT}"));
            return;
        }
        let joined = match Uplink::adopt(router, &self.name) {
            Ok(Some(uplink)) => Ok(uplink),
            Ok(None) => Uplink::make(router, &self.name),
            Err(error) => Err(error),
        };
        match joined.and_then(|uplink| Ok((Uplink::obstacles()?, uplink))) {
            Ok((obstacles, uplink)) => {
                let sentence = |obstacle: &super::Obstacle| obstacle.sentence(&uplink.device());
                standing.obstacles = obstacles.iter().map(sentence).collect();
            }
            Err(error) => standing.no_way_out = Some(error.to_string()),
        }
    }

    /// Something to wait on, readable when the router has ended.
    pub(crate) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.router.as_ref().map(Router::end_of)
    }

    /// How long until [`Self::renew`] is to be asked again, if at all.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Makes another router if the present one has ended, and what could not be made at an earlier try. Answers
    /// if something has changed.
    pub(crate) fn renew(&mut self) -> Option<Renewed> {
        let keeps_slots = self.router.as_ref().is_some_and(Router::is_alive);
        let has_ended = self.router.is_some() && !keeps_slots;
        if !has_ended && self.retry_in().is_none_or(|wait| !wait.is_zero()) {
            return None;
        }
        let (standing, listener) = self.find();
        self.retry_at = standing.lacks(&self.first).then(|| Instant::now() + RETRY);
        if standing == self.now && listener.is_none() && !has_ended {
            return None;
        }
        self.now = standing.clone();
        Some(Renewed { standing, listener, keeps_slots })
    }

    /// Attaches a slot, which may leave if so; nothing where there is no network.
    pub(crate) fn attach(
        &mut self,
        slot: BorrowedFd<'_>,
        leaves: bool,
    ) -> io::Result<Option<Attachment>> {
        let Some(router) = &mut self.router else { return Ok(None) };
        let at = router.attach(slot)?;
        router.let_leave(at.place, leaves)?;
        Ok(Some(at))
    }

    /// Takes a slot's place back.
    pub(crate) fn detach(&mut self, place: Place) -> io::Result<()> {
        self.router.as_mut().map_or(Ok(()), |router| router.detach(place))
    }

    /// Lets a slot leave or not.
    pub(crate) fn let_leave(&mut self, place: Place, may_leave: bool) -> io::Result<()> {
        self.router.as_mut().map_or(Ok(()), |router| router.let_leave(place, may_leave))
    }
}
