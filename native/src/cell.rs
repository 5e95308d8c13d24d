//! A cell: the state of one aggregate over one window in one leaf; see `core/feature/cell.py`.

use crate::acc::{Acc, Cap, FOREVER, Spec, Val, Weights};
use crate::msgpack::{self, Known, Reader, Unknown};
use crate::raw::{Raw, chars};
use crate::zone::{Period, Zone};

const TILE_BYTES: i64 = 6;
const GROUP_BYTES: i64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Register,
    Tiled,
    Grouped,
}

/// Which tiles there are, and how far back a read looks.
#[derive(Debug, Clone, Copy)]
pub enum Grid {
    Fixed { width_ms: i64, window_ms: Option<i64> },
    Calendar { period: Period, previous: i64 },
}

pub struct Cell {
    pub spec: Spec,
    pub layout: Layout,
    pub grid: Grid,
    pub groups_max: usize,
    /// The purposes that must all be permitted.
    pub needs: Vec<String>,
}

type Tiles = Vec<(i64, Acc)>;
type Groups = Vec<(i64, Cap<Acc>)>;

/// Tiles ascend; one tile, the commonest, needs no allocation.
pub enum State {
    None,
    Register(Acc),
    One(i64, Acc),
    Tiles(Box<Tiles>),
    Groups(Box<Groups>),
}

impl Cell {
    /// The oldest instant of a register, or the oldest tile, that lives.
    ///
    /// A leaf that has purges, and a cell of calendar periods, is Python's.
    pub fn floor(&self, clock_ms: i64, purged: &[(String, i64)], zone: &Zone) -> i64 {
        let register = self.layout == Layout::Register;
        let (width_ms, window_ms) = match self.grid {
            Grid::Calendar { period, previous } => return zone.period(period, clock_ms) - previous,
            Grid::Fixed { width_ms, window_ms } => (width_ms, window_ms),
        };
        let mut floor = match window_ms {
            None => FOREVER,
            Some(window) if register => clock_ms - window,
            Some(window) => (clock_ms - window).div_euclid(width_ms),
        };
        for (purpose, purged_ms) in purged {
            if self.needs.contains(purpose) {
                let kept = if register { *purged_ms } else { -(-purged_ms).div_euclid(width_ms) };
                floor = floor.max(kept);
            }
        }
        floor
    }

    #[inline]
    fn tile(&self, at: i64, zone: &Zone) -> i64 {
        match self.grid {
            Grid::Fixed { width_ms, .. } => at.div_euclid(width_ms),
            Grid::Calendar { period, .. } => zone.period(period, at),
        }
    }

    #[inline]
    pub fn add(
        &self,
        state: &mut State,
        value: &Val<'_>,
        at: i64,
        event: u64,
        (weights, zone): (&Weights, &Zone),
    ) {
        self.spec.add(self.place(state, at, zone), value, at, event, weights);
    }

    pub fn add_keyed(&self, state: &mut State, key: Raw, value: &Val<'_>, at: i64, event: u64, zone: &Zone) {
        self.spec.add_keyed(self.place(state, at, zone), key, value, at, event);
    }

    /// Return the accumulator of one group, if it is kept.
    pub fn group<'s>(&self, state: &'s mut State, group: &Raw, at: i64, zone: &Zone) -> Option<&'s mut Acc> {
        let tile = self.tile(at, zone);
        if !matches!(state, State::Groups(_)) {
            *state = State::Groups(Box::default());
        }
        let State::Groups(tiles) = state else { return None };
        let place = match tiles.last() {
            Some((last, _)) if *last == tile => tiles.len() - 1,
            _ => match tiles.binary_search_by_key(&tile, |(held, _)| *held) {
                Ok(place) => place,
                Err(place) => {
                    tiles.insert(place, (tile, Cap::new()));
                    place
                }
            },
        };
        tiles[place].1.entry(group, self.groups_max, || Acc::Nothing)
    }

    fn place<'s>(&self, state: &'s mut State, at: i64, zone: &Zone) -> &'s mut Acc {
        if self.layout == Layout::Register {
            if !matches!(state, State::Register(_)) {
                *state = State::Register(Acc::Nothing);
            }
        } else {
            let tile = self.tile(at, zone);
            match state {
                State::One(held, _) if *held == tile => {}
                State::Tiles(tiles) => return place_in(tiles, tile),
                State::One(..) => {
                    if let State::One(held, acc) = std::mem::replace(state, State::None) {
                        let mut tiles = Vec::with_capacity(2);
                        tiles.push((held, acc));
                        *state = State::Tiles(Box::new(tiles));
                    }
                    if let State::Tiles(tiles) = state {
                        return place_in(tiles, tile);
                    }
                }
                _ => *state = State::One(tile, Acc::Nothing),
            }
        }
        match state {
            State::Register(acc) | State::One(_, acc) => acc,
            _ => unreachable!("one of the two was put there"),
        }
    }

    /// Drop what is below a floor.
    pub fn expire(&self, state: &mut State, floor: i64) {
        let empty = match state {
            State::None => return,
            State::Register(acc) => {
                if floor != FOREVER {
                    self.spec.since(acc, floor);
                }
                matches!(acc, Acc::Nothing)
            }
            State::One(tile, _) => *tile < floor,
            State::Tiles(tiles) => {
                tiles.retain(|(tile, _)| *tile >= floor);
                tiles.is_empty()
            }
            State::Groups(tiles) => {
                tiles.retain(|(tile, _)| *tile >= floor);
                tiles.is_empty()
            }
        };
        if empty {
            *state = State::None;
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>, state: &State, floor: i64) {
        match state {
            State::None => out.push(msgpack::NIL),
            State::Register(acc) => self.spec.encode(out, acc, floor),
            State::One(tile, acc) => {
                if *tile < floor {
                    out.push(msgpack::NIL);
                } else {
                    out.push(0x92);
                    msgpack::put_int(out, *tile);
                    self.spec.encode(out, acc, FOREVER);
                }
            }
            State::Tiles(tiles) => put_tiles(out, tiles, floor, |out, acc| {
                self.spec.encode(out, acc, FOREVER);
            }),
            State::Groups(tiles) => put_tiles(out, tiles, floor, |out, groups| {
                groups.encode(out, |out, acc| self.spec.encode(out, acc, FOREVER));
            }),
        }
    }

    pub fn decode(&self, reader: &mut Reader<'_>) -> Known<State> {
        if reader.nil() {
            return Ok(State::None);
        }
        if self.layout == Layout::Register {
            return Ok(State::Register(self.spec.decode(reader)?));
        }
        let count = reader.array()?;
        if count == 0 || count % 2 == 1 {
            return Err(Unknown);
        }
        if self.layout == Layout::Grouped {
            let mut tiles: Groups = Vec::with_capacity((count / 2).min(1024));
            for _ in 0..count / 2 {
                let tile = next_tile(reader, tiles.last())?;
                tiles.push((tile, Cap::decode(reader, |reader| self.spec.decode(reader))?));
            }
            return Ok(State::Groups(Box::new(tiles)));
        }
        if count == 2 {
            let tile = reader.i64()?;
            return Ok(State::One(tile, self.spec.decode(reader)?));
        }
        let mut tiles: Tiles = Vec::with_capacity((count / 2).min(1024));
        for _ in 0..count / 2 {
            let tile = next_tile(reader, tiles.last())?;
            tiles.push((tile, self.spec.decode(reader)?));
        }
        Ok(State::Tiles(Box::new(tiles)))
    }

    /// The estimate of a state's encoded bytes.
    pub fn size(&self, state: &State) -> i64 {
        match state {
            State::None => 1,
            State::Register(acc) => self.spec.size(acc),
            State::One(_, acc) => TILE_BYTES + self.spec.size(acc),
            State::Tiles(tiles) => tiles.iter().map(|(_, acc)| TILE_BYTES + self.spec.size(acc)).sum(),
            State::Groups(tiles) => tiles
                .iter()
                .map(|(_, groups)| {
                    let each = |(group, acc): &(Raw, Acc)| {
                        GROUP_BYTES + group.text().map_or(0, chars) + self.spec.size(acc)
                    };
                    TILE_BYTES + groups.pairs.iter().map(each).sum::<i64>()
                })
                .sum(),
        }
    }
}

fn place_in(tiles: &mut Tiles, tile: i64) -> &mut Acc {
    let place = match tiles.last() {
        Some((last, _)) if *last == tile => tiles.len() - 1,
        _ => match tiles.binary_search_by_key(&tile, |(held, _)| *held) {
            Ok(place) => place,
            Err(place) => {
                tiles.insert(place, (tile, Acc::Nothing));
                place
            }
        },
    };
    &mut tiles[place].1
}

fn next_tile<V>(reader: &mut Reader<'_>, before: Option<&(i64, V)>) -> Known<i64> {
    let tile = reader.i64()?;
    if before.is_some_and(|(held, _)| *held >= tile) { Err(Unknown) } else { Ok(tile) }
}

fn put_tiles<V>(out: &mut Vec<u8>, tiles: &[(i64, V)], floor: i64, mut put: impl FnMut(&mut Vec<u8>, &V)) {
    let live = &tiles[tiles.partition_point(|(tile, _)| *tile < floor)..];
    if live.is_empty() {
        out.push(msgpack::NIL);
        return;
    }
    msgpack::put_array(out, 2 * live.len());
    for (tile, value) in live {
        msgpack::put_int(out, *tile);
        put(out, value);
    }
}
