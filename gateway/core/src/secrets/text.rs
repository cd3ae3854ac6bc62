//! Text as a detector reads it: forwards or backwards, whole or with what was left out of it.

/// Bytes with a direction, and the places where something was left out.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    bytes: &'t [u8],
    backwards: bool,
    gaps: &'t Gaps,
}

/// The positions of a text before which something was left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    places: Vec<Gap>,
    /// The same, one bit for each position.
    marks: Vec<u64>,
    /// Whether nothing was left out: what stands before a place was spelled longer.
    is_spelling: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// The position in the shorter text.
    at: usize,
    /// What stands there stood here.
    origin: usize,
}

impl Gaps {
    pub(super) const NONE: Self = Self { places: Vec::new(), marks: Vec::new(), is_spelling: false };

    /// Of a text that was spelled longer in some places.
    pub(super) fn spelling() -> Self {
        Self { is_spelling: true, ..Self::NONE }
    }

    /// For a text of this length.
    pub(super) fn with_room(length: usize) -> Self {
        Self { places: Vec::with_capacity(length / 8), marks: Vec::with_capacity(length / 64 + 1), is_spelling: false }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Something was left out before `at`; what stands there stood at `origin`. In ascending order.
    pub(super) fn push(&mut self, at: usize, origin: usize) {
        match self.places.last_mut() {
            // Of what became nothing the end counts.
            Some(last) if last.at == at => last.origin = origin,
            _ => self.places.push(Gap { at, origin }),
        }
        if at / 64 >= self.marks.len() {
            self.marks.resize(at / 64 + 1, 0);
        }
        self.marks[at / 64] |= 1 << (at % 64);
    }

    #[inline]
    fn is_at(&self, at: usize) -> bool {
        self.marks.get(at / 64).is_some_and(|marks| marks >> (at % 64) & 1 == 1)
    }

    pub(super) fn is_any_after(&self, start: usize, end: usize) -> bool {
        let next = self.places.partition_point(|gap| gap.at <= start);
        self.places.get(next).is_some_and(|gap| gap.at < end)
    }

    /// Where what stands before `at` now ended.
    pub(super) fn origin_after(&self, at: usize) -> usize {
        let next = self.places.partition_point(|gap| gap.at < at);
        let spelled = self.places.get(next).filter(|gap| self.is_spelling && gap.at == at);
        spelled.map_or_else(|| self.origin_of(at.saturating_sub(1)) + 1, |gap| gap.origin)
    }

    /// Where stood what stands at `at` now.
    pub(super) fn origin_of(&self, at: usize) -> usize {
        let next = self.places.partition_point(|gap| gap.at <= at);
        let Some(index) = next.checked_sub(1) else { return at };
        let origin = self.places[index].origin + (at - self.places[index].at);
        // What is spelled by more characters than it becomes has one place.
        match self.places.get(next).filter(|_| self.is_spelling) {
            Some(next) => origin.min(next.origin.saturating_sub(1).max(self.places[index].origin)),
            None => origin,
        }
    }
}

impl<'t> Text<'t> {
    pub(super) fn new(bytes: &'t [u8], gaps: &'t Gaps) -> Self {
        Self { bytes, backwards: false, gaps }
    }

    pub(super) fn backwards(self) -> Self {
        Self { backwards: !self.backwards, ..self }
    }

    pub(super) fn is_backwards(&self) -> bool {
        self.backwards
    }

    /// The bytes, in their own order.
    pub(super) fn bytes(&self) -> &'t [u8] {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The byte at `at`, in reading direction.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<u8> {
        if self.backwards {
            self.bytes.len().checked_sub(at + 1).map(|index| self.bytes[index])
        } else {
            self.bytes.get(at).copied()
        }
    }

    /// Where `start..end` of the reading direction lies in the bytes, and the other way round.
    pub(super) fn span(&self, start: usize, end: usize) -> std::ops::Range<usize> {
        if self.backwards { self.bytes.len() - end..self.bytes.len() - start } else { start..end }
    }

    /// The bytes from `start` to `end`, in reading direction.
    pub(super) fn slice(&self, start: usize, end: usize) -> Vec<u8> {
        let mut bytes = self.bytes[self.span(start, end)].to_vec();
        if self.backwards {
            bytes.reverse();
        }
        bytes
    }

    /// Whether something was left out right before `at`.
    pub(super) fn is_gap(&self, at: usize) -> bool {
        let at = if self.backwards { self.bytes.len() - at } else { at };
        self.gaps.is_at(at)
    }

    /// Whether something was left out between `start` and `end`.
    pub(super) fn has_gap(&self, start: usize, end: usize) -> bool {
        let span = self.span(start, end);
        self.gaps.is_any_after(span.start, span.end)
    }

    /// Whether a word of letters and digits may begin or end between `at - 1` and `at`.
    pub(super) fn is_edge(&self, at: usize) -> bool {
        at == 0 || at >= self.len() || self.is_gap(at) || {
            let (before, after) = (self.get(at - 1), self.get(at));
            !before.is_some_and(|b| b.is_ascii_alphanumeric()) || !after.is_some_and(|b| b.is_ascii_alphanumeric())
        }
    }
}
