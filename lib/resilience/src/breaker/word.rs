//! Generation and state of a breaker in one number, so that both change at once.

use super::state::State;

/// Generation and state in one atomic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const STATES: [State; 7] = [
    State::Closed,
    State::Open,
    State::HalfOpen,
    State::Recovering,
    State::Isolated,
    State::Disabled,
    State::ObserveOnly,
];

impl Word {
    pub(super) fn new(generation: u64, state: State) -> Self {
        let code = STATES.iter().position(|s| *s == state).unwrap_or(0) as u64;
        Word(generation << 3 | code)
    }

    #[inline]
    pub(super) fn state(self) -> State {
        STATES[(self.0 & 7).min(6) as usize]
    }

    /// Whether calls pass and count, the state that nearly every call meets.
    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & 7 == 0
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> 3
    }

    /// What the tally's counters carry.
    #[inline]
    pub(super) fn tag(self) -> u32 {
        self.generation() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_generation_come_back_out_of_the_word() {
        for state in STATES {
            let word = Word::new(41, state);
            assert_eq!((word.state(), word.generation(), word.tag()), (state, 41, 41));
            assert_eq!(word.is_closed(), state == State::Closed);
        }
    }
}
