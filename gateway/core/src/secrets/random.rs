//! How random a text looks: what tells a key from a word, a name or a path.

/// Shannon entropy in bits a byte.
pub(super) fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "lengths of tokens")]
    let share = |count: u32| count as f32 / bytes.len() as f32;
    counts.iter().filter(|count| **count > 0).map(|count| -share(*count) * share(*count).log2()).sum()
}

/// How many different bytes there are.
pub(super) fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}

/// For each small letter the letters that often follow it in words and in names of programs, as one bit each. Counted over the
/// words of this repository's own documentation: the pairs that make up 93 in 100 of all pairs.
const FOLLOWS: [u32; 26] = [
    0x11ebd4e, 0x0104911, 0x00a4d91, 0x0044119, 0x1efb97d, 0x0124131, 0x0166111, 0x0004111, 0x22ef87d, 0x0000000,
    0x0040110, 0x11c4919, 0x000c111, 0x01c617d, 0x07efd4e, 0x01ec911, 0x0100000, 0x13e755d, 0x11cc595, 0x11e4195,
    0x00eb912, 0x0000111, 0x0026191, 0x0088000, 0x0048000, 0x0000010,
];

/// The share of neighbouring characters that words do not have side by side: near 0 for words, names and paths, near 1 for
/// what a generator made.
pub(super) fn roughness(bytes: &[u8]) -> f32 {
    let (mut pairs, mut rough) = (0u32, 0u32);
    for pair in bytes.windows(2) {
        pairs += u32::from(pair[0].is_ascii_alphanumeric() && pair[1].is_ascii_alphanumeric());
        rough += u32::from(is_rough(pair[0], pair[1]));
    }
    #[expect(clippy::cast_precision_loss, reason = "lengths of tokens")]
    let share = rough as f32 / pairs.max(1) as f32;
    share
}

/// Whether words do not have these two side by side.
#[inline]
pub(super) fn is_rough(a: u8, b: u8) -> bool {
    if !a.is_ascii_alphanumeric() || !b.is_ascii_alphanumeric() {
        return false;
    }
    match (a.is_ascii_digit(), b.is_ascii_digit()) {
        (true, true) => false,
        (true, false) | (false, true) => true,
        (false, false) => !follows(a, b),
    }
}

fn follows(a: u8, b: u8) -> bool {
    let letter = |byte: u8| usize::from(byte.to_ascii_lowercase() - b'a');
    FOLLOWS[letter(a)] >> letter(b) & 1 == 1
}
