//! What something costs: tokens and micro-USD, whole numbers, never rounded down.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens and money. Sums saturate: what is too large to count is never cheap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Tokens of an engine, in and out together.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub micro_usd: u64,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Tokens.
    Tokens,
    /// Millionths of a US dollar.
    MicroUsd,
}

impl Unit {
    /// Both.
    pub const ALL: [Unit; 2] = [Unit::Tokens, Unit::MicroUsd];
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Tokens => "tokens",
            Unit::MicroUsd => "micro_usd",
        })
    }
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount { tokens: 0, micro_usd: 0 };

    /// How much it is in one unit.
    pub fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::MicroUsd => self.micro_usd,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            tokens: self.tokens.saturating_add(other.tokens),
            micro_usd: self.micro_usd.saturating_add(other.micro_usd),
        }
    }

    /// What is left without the other; never below nothing.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            tokens: self.tokens.saturating_sub(other.tokens),
            micro_usd: self.micro_usd.saturating_sub(other.micro_usd),
        }
    }

    /// Whether it is more than the other in any unit.
    pub fn exceeds(self, other: Amount) -> bool {
        self.tokens > other.tokens || self.micro_usd > other.micro_usd
    }
}

/// What an engine says that a call has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Those of them that came out of the provider's cache.
    #[serde(default)]
    pub cached: u64,
    /// Those of them that went into it.
    #[serde(default)]
    pub cache_written: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
}

impl Usage {
    /// All tokens.
    pub fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What a model costs, in micro-USD for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Tokens of the prompt that came out of the provider's cache.
    pub cached_input: u64,
    /// Tokens of the prompt that went into it.
    pub cache_write: u64,
}

impl Price {
    /// What a call cost, rounded up to a whole micro-USD.
    pub fn of(self, usage: Usage) -> u64 {
        let cached = usage.cached.min(usage.input);
        let written = usage.cache_written.min(usage.input - cached);
        let plain = usage.input - cached - written;
        let parts = [
            (plain, self.input),
            (cached, self.cached_input),
            (written, self.cache_write),
            (usage.output, self.output),
        ];
        let sum = parts.iter().fold(0u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(*price)))
        });
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// The most that so many tokens can cost, whatever the provider's cache does.
    pub fn at_most(self, input: u64, output: u64) -> u64 {
        let dearest = self.input.max(self.cached_input).max(self.cache_write);
        Price { input: dearest, ..self }.of(Usage { input, output, ..Usage::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRICE: Price = Price { input: 250_000, output: 2_000_000, cached_input: 25_000, cache_write: 312_500 };

    #[test]
    fn s3_02_money_is_whole_and_rounded_up() {
        let cost = |input, cached, output| PRICE.of(Usage { input, cached, output, cache_written: 0 });
        assert_eq!(cost(1_000_000, 0, 1_000_000), 2_250_000);
        assert_eq!(cost(1_000_000, 1_000_000, 0), 25_000);
        assert_eq!(cost(1, 0, 0), 1, "a quarter of a micro-USD is one");
        assert_eq!(cost(0, 0, 0), 0);
        assert_eq!(cost(5, 9, 0), 1, "no more can come out of a cache than went in");
    }

    #[test]
    fn s3_26_what_is_too_large_to_count_is_never_cheap() {
        assert_eq!(PRICE.at_most(u64::MAX, u64::MAX), u64::MAX);
        let much = Amount { tokens: u64::MAX, micro_usd: 1 };
        assert_eq!(much.plus(much), Amount { tokens: u64::MAX, micro_usd: 2 });
        assert_eq!(Amount::ZERO.minus(much), Amount::ZERO);
    }

    proptest! {
        #[test]
        fn the_most_is_never_less_than_what_it_was(input in 0u64..1 << 40, cached in 0u64..1 << 40, written in 0u64..1 << 40, output in 0u64..1 << 40) {
            let usage = Usage { input, cached, cache_written: written, output };
            prop_assert!(PRICE.at_most(input, output) >= PRICE.of(usage));
        }
    }
}
