//! The slots that the spawner has made ahead for its server.

use pinnace_core::limits;

use crate::{
    adoption,
    cgroup::Cgroups,
    network::Wiring,
    protocol::{Expected, FromSpawner, SlotSpec},
    slot::{Slot, Workshop},
};

/// Slots in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Slots {
    ahead: Vec<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    slot: Slot,
    /// The request to be answered once its init is parked.
    asked: Option<u64>,
}

impl Slots {
    /// Begins to make a slot.
    ///
    /// # Errors
    /// A sentence: it cannot be made, or there are too many.
    pub(crate) fn prepare(
        &mut self,
        shop: &Workshop<'_>,
        wiring: &mut Wiring,
        request: u64,
        spec: &SlotSpec,
        expected: &Expected,
    ) -> Result<(), String> {
        if self.ahead.len() >= limits::SLOTS_MAX {
            return Err(format!("{} slots are made ahead, the most that may", limits::SLOTS_MAX));
        }
        let slot = Slot::make(shop, wiring, spec, expected)
            .map_err(|error| format!("cannot make slot {}: {error}", spec.name))?;
        self.ahead.push(Ahead { slot, asked: Some(request) });
        Ok(())
    }

    /// Takes a slot out, if it is there and its init lives.
    pub fn take(&mut self, name: &str, cgroups: &Cgroups) -> Option<Slot> {
        let at = self.ahead.iter().position(|ahead| ahead.slot.spec.name == name)?;
        let slot = self.ahead.swap_remove(at).slot;
        if adoption::has_ended(&slot.pidfd) {
            slot.abandon(cgroups);
            return None;
        }
        Some(slot)
    }

    /// Lets go of a slot, whose init then ends.
    pub fn retire(&mut self, name: &str) {
        self.ahead.retain(|ahead| ahead.slot.spec.name != name);
    }

    /// Lets go of all, and says what the server is to know.
    pub fn lose(&mut self, reason: &str, cgroups: &Cgroups) -> Vec<FromSpawner> {
        // They end side by side; each is waited for below.
        for Ahead { slot, .. } in &self.ahead {
            let _ = adoption::kill(&slot.pidfd);
        }
        let lost = self.ahead.drain(..);
        lost.map(|Ahead { slot, asked }| give_up(slot, asked, reason, cgroups)).collect()
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.ahead.clear();
    }

    /// What to wait on: one of them has said something when its descriptor is readable.
    pub fn sources(&self) -> impl Iterator<Item = &Slot> {
        self.ahead.iter().map(|ahead| &ahead.slot)
    }

    /// Hears all of them, and says what the server is to know.
    pub fn hear(&mut self, cgroups: &Cgroups) -> Vec<FromSpawner> {
        let mut news = Vec::new();
        let mut at = 0;
        while let Some(ahead) = self.ahead.get_mut(at) {
            match (ahead.slot.parked(), ahead.asked) {
                (None, _) => at += 1,
                (Some(Ok(())), asked) => {
                    news.extend(asked.map(|request| FromSpawner::Prepared { request }));
                    ahead.asked = None;
                    at += 1;
                }
                (Some(Err(reason)), asked) => {
                    let slot = self.ahead.swap_remove(at).slot;
                    news.push(give_up(slot, asked, &reason, cgroups));
                }
            }
        }
        news
    }
}

/// Leaves nothing of a slot: the server may ask for a start in it before it hears of that, and gets a new one
/// of the same name.
fn give_up(slot: Slot, asked: Option<u64>, reason: &str, cgroups: &Cgroups) -> FromSpawner {
    let name = slot.spec.name.clone();
    slot.abandon(cgroups);
    match asked {
        Some(request) => {
            let reason = format!("slot {name} is of no use: {reason}");
            FromSpawner::Refused { request, reason }
        }
        None => FromSpawner::Lost { slot: name },
    }
}
