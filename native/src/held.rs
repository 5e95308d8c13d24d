//! The leaves that a fold holds, which of them changed, and which were loaded first.

use std::collections::{HashMap, VecDeque};

use crate::hash::Plain;
use crate::leaf::{Leaf, Version};

pub type LeafId = [u8; 16];

pub enum Body {
    Here(Leaf),
    /// Python has it: something of it is not known here.
    InPython(Version),
}

pub struct Slot {
    pub base: Version,
    pub dirty_from: i64,
    pub body: Body,
}

impl Slot {
    pub fn version(&self) -> Version {
        match &self.body {
            Body::Here(leaf) => leaf.version,
            Body::InPython(version) => *version,
        }
    }
}

#[derive(Default)]
pub struct Held {
    pub slots: HashMap<LeafId, Box<Slot>, Plain>,
    /// Changed leaves by the first record that is not written, ascending.
    pub dirty: VecDeque<(LeafId, i64)>,
    /// Oldest loaded first.
    loaded: VecDeque<LeafId>,
}

impl Held {
    pub fn find(&self, leaf: &[u8]) -> Option<&Slot> {
        self.slots.get(<&LeafId>::try_from(leaf).ok()?).map(Box::as_ref)
    }

    pub fn find_mut(&mut self, leaf: &[u8]) -> Option<&mut Slot> {
        self.slots.get_mut(<&LeafId>::try_from(leaf).ok()?).map(Box::as_mut)
    }

    pub fn holds(&self, leaf: &[u8]) -> bool {
        self.find(leaf).is_some()
    }

    pub fn put(&mut self, id: LeafId, slot: Slot) {
        if self.slots.insert(id, Box::new(slot)).is_none() {
            self.loaded.push_back(id);
        }
    }

    pub fn touch(&mut self, id: &LeafId, offset: i64) {
        if let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.dirty_from < 0) {
            slot.dirty_from = offset;
            self.dirty.push_back((*id, offset));
        }
    }

    /// Let go of a leaf, whatever of it is not written.
    pub fn remove(&mut self, id: &LeafId) {
        if self.slots.remove(id).is_some() {
            self.loaded.retain(|held| held != id);
            self.dirty.retain(|(held, _)| held != id);
        }
    }

    pub fn clear(&mut self) {
        *self = Held::default();
    }

    pub fn clear_dirty(&mut self) {
        for (id, _) in self.dirty.drain(..) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.dirty_from = -1;
            }
        }
    }

    /// Let go of the oldest loaded, but for what is not written; return those that Python has to let go.
    pub fn evict(&mut self, most: usize) -> Vec<LeafId> {
        let mut gone = Vec::new();
        if self.slots.len() <= most {
            return gone;
        }
        for _ in 0..self.slots.len() - most + most / 20 {
            let Some(id) = self.loaded.pop_front() else { break };
            let Some(slot) = self.slots.get(&id) else { continue };
            if slot.dirty_from >= 0 || slot.base != slot.version() {
                // Used lately, so it goes to the back.
                self.loaded.push_back(id);
                continue;
            }
            if matches!(slot.body, Body::InPython(_)) {
                gone.push(id);
            }
            self.slots.remove(&id);
        }
        gone
    }
}
