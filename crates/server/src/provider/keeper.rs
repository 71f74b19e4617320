//! Keeps as many replicas running as are wanted, for runtimes that can only start one and stop one.
//!
//! One task holds the state of every function and hears everything in order: deploys, wishes, calls that
//! found no replica, and what replicas report. After each it brings the function a step nearer to what is
//! wanted. Starting, draining and stopping happen elsewhere and report back.

mod function;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pinnace_core::{Exit, FunctionRef, limits};
use tokio::sync::{mpsc, oneshot};

use self::function::Function;
use crate::{
    catalog::{Deployed, Entry},
    clock::now,
    proxy::admission::Activate,
    replica::Endpoint,
};

/// Starts and stops single replicas.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a replica of this name. What becomes of it is reported under that name: any number of
    /// [`Event::Preparing`], then [`Event::Ready`] and [`Event::Unready`] by turns, and exactly one
    /// [`Event::Gone`], which is the last.
    fn start(self: Arc<Self>, replica: &str, deployed: &Arc<Deployed>, reports: Reports);

    /// Asks a replica to stop, and ends it when it has not after `grace`. Its end is reported.
    fn stop(&self, replica: &str, grace: Duration);
}

/// What a replica reports.
#[derive(Debug)]
pub enum Event {
    /// It cannot start yet; a sentence about what is done for it.
    Preparing(String),
    /// It serves: it accepted a connection, and says itself that it is ready where its function has it asked.
    Ready(Endpoint),
    /// It serves no more, but may again: a sentence why. Another [`Event::Ready`] may follow.
    Unready(String),
    /// It is no more.
    Gone(Exit),
}

/// Where one replica's reports go.
#[derive(Clone, Debug)]
pub struct Reports {
    function: FunctionRef,
    replica: String,
    commands: mpsc::Sender<Command>,
}

impl Reports {
    /// Tells the keeper.
    pub async fn send(&self, event: Event) {
        let (function, replica) = (self.function.clone(), self.replica.clone());
        // A keeper that has ended has no replicas to hear of.
        drop(self.commands.send(Command::Report { function, replica, event }).await);
    }
}

/// A replica that was running before this server.
#[derive(Debug)]
pub struct Adopted {
    /// Its name.
    pub replica: String,
    /// The deploy it belongs to.
    pub revision: u64,
}

/// Settings of a keeper.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    /// Worker threads that will call replicas.
    pub workers: usize,
    /// Whether functions without the scale-to-zero label end when idle.
    pub zero_by_default: bool,
    /// Longest time a call may take to its first byte; replicas drain at least so long.
    pub call_deadline: Duration,
}

/// A handle on the task.
#[derive(Clone, Debug)]
pub struct Keeper {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Apply { entry: Arc<Entry>, deployed: Arc<Deployed>, wanted: u32, adopted: Vec<Adopted> },
    Want { function: FunctionRef, replicas: u32 },
    Remove { function: FunctionRef },
    Called { function: FunctionRef },
    Report { function: FunctionRef, replica: String, event: Event },
    EndAll { done: oneshot::Sender<()> },
}

/// How often idle functions are looked at.
const TICK: Duration = Duration::from_secs(1);

impl Keeper {
    /// Starts the task.
    #[must_use]
    pub fn start(runtime: Arc<dyn Runtime>, settings: KeeperSettings) -> Self {
        let (commands, inbox) = mpsc::channel(limits::KEEPER_QUEUE_MAX);
        let work = Work {
            runtime,
            settings,
            functions: HashMap::new(),
            commands: commands.clone(),
            ending: None,
        };
        tokio::spawn(work.run(inbox));
        Self { commands }
    }

    /// A function is new or has a new deploy. `adopted` replicas run already.
    pub fn apply(
        &self,
        entry: &Arc<Entry>,
        deployed: Arc<Deployed>,
        wanted: u32,
        adopted: Vec<Adopted>,
    ) {
        self.tell(Command::Apply { entry: entry.clone(), deployed, wanted, adopted });
    }

    /// So many replicas are wanted.
    pub fn want(&self, function: &FunctionRef, replicas: u32) {
        self.tell(Command::Want { function: function.clone(), replicas });
    }

    /// A function is no more.
    pub fn remove(&self, function: &FunctionRef) {
        self.tell(Command::Remove { function: function.clone() });
    }

    /// Where reports of this replica go.
    #[must_use]
    pub fn reports(&self, function: &FunctionRef, replica: &str) -> Reports {
        let (function, replica) = (function.clone(), replica.to_owned());
        Reports { function, replica, commands: self.commands.clone() }
    }

    /// Drains and ends every replica; resolves when none is left.
    pub async fn end_all(&self) {
        let (done, ended) = oneshot::channel();
        self.tell(Command::EndAll { done });
        drop(ended.await);
    }

    fn tell(&self, command: Command) {
        // The queue holds more commands than there can be changes between two of the loop's steps; where
        // it is full all the same, the command waits in a task rather than hold up the caller.
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }
}

impl Activate for Keeper {
    fn activate(&self, entry: &Arc<Entry>) {
        let called = Command::Called { function: entry.id.clone() };
        if self.commands.try_send(called).is_err() {
            // Full: the next call asks again.
            entry.heard_call();
        }
    }
}

struct Work {
    runtime: Arc<dyn Runtime>,
    settings: KeeperSettings,
    functions: HashMap<FunctionRef, Function>,
    commands: mpsc::Sender<Command>,
    ending: Option<oneshot::Sender<()>>,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.functions.values().filter_map(Function::due).min();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.hear(command),
                    None => return,
                },
                () = sleep_until(due) => self.step_due(),
                // While nothing is to be scaled to zero, nobody is woken.
                _ = tick.tick(), if self.functions.values().any(Function::is_wanted) => {
                    self.end_idle();
                }
            }
            if self.ending.is_some() && self.functions.is_empty() {
                let _ = self.ending.take().map(|done| done.send(()));
            }
        }
    }

    fn hear(&mut self, command: Command) {
        match command {
            Command::Apply { entry, deployed, wanted, adopted } => {
                self.apply(&entry, deployed, wanted, adopted);
            }
            Command::Want { function, replicas } => {
                self.with(&function, |kept, now| kept.want(replicas, now));
            }
            Command::Called { function } => self.with(&function, Function::called),
            Command::Remove { function } => self.with(&function, |kept, _| kept.remove()),
            Command::Report { function, replica, event } => {
                self.with(&function, |kept, now| kept.report(&replica, event, now));
            }
            Command::EndAll { done } => {
                self.ending = Some(done);
                let all: Vec<FunctionRef> = self.functions.keys().cloned().collect();
                for function in all {
                    self.with(&function, |kept, _| kept.remove());
                }
            }
        }
    }

    fn apply(
        &mut self,
        entry: &Arc<Entry>,
        deployed: Arc<Deployed>,
        wanted: u32,
        adopted: Vec<Adopted>,
    ) {
        if self.ending.is_some() {
            return;
        }
        let (id, now) = (entry.id.clone(), now());
        match self.functions.get_mut(&id) {
            Some(kept) => kept.deploy(entry, deployed, wanted, now),
            None => {
                let workers = self.settings.workers;
                let kept = Function::new(entry.clone(), deployed, wanted, workers, now);
                self.functions.insert(id.clone(), kept);
            }
        }
        self.with(&id, |kept, _| kept.adopt(adopted));
    }

    /// Changes a function, then brings it a step nearer to what is wanted.
    fn with(&mut self, id: &FunctionRef, change: impl FnOnce(&mut Function, Instant)) {
        let Some(kept) = self.functions.get_mut(id) else { return };
        let now = now();
        change(kept, now);
        let orders = kept.step(now);
        for replica in orders.start {
            let reports = Reports {
                function: id.clone(),
                replica: replica.clone(),
                commands: self.commands.clone(),
            };
            self.runtime.clone().start(&replica, &kept.deployed, reports);
        }
        for stopping in orders.stop {
            let runtime = self.runtime.clone();
            let drain = self.settings.call_deadline.max(stopping.grace);
            tokio::spawn(stopping.drain_and_stop(runtime, drain));
        }
        if kept.is_over() {
            self.functions.remove(id);
        }
    }

    fn step_due(&mut self) {
        let now = now();
        let due = |kept: &Function| kept.due().is_some_and(|due| due <= now);
        let all: Vec<FunctionRef> =
            self.functions.iter().filter(|(_, kept)| due(kept)).map(|(id, _)| id.clone()).collect();
        for function in all {
            self.with(&function, |_, _| {});
        }
    }

    fn end_idle(&mut self) {
        let (now, by_default) = (now(), self.settings.zero_by_default);
        let idle: Vec<FunctionRef> = self
            .functions
            .iter()
            .filter(|(_, kept)| kept.is_idle(now, by_default))
            .map(|(id, _)| id.clone())
            .collect();
        for function in idle {
            tracing::info!(%function, "idle: scaled to zero");
            self.with(&function, |kept, now| kept.want(0, now));
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
