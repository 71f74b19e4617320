//! Where bytes are cut into pieces: by the bytes themselves, so that the same input is always cut alike.

/// How many cuts of an input are tried.
const CUTS: u64 = 8;

/// Some places within so many bytes; all of them, if they are few.
pub fn places(bytes: &[u8]) -> Vec<usize> {
    if bytes.len() as u64 <= CUTS {
        return (0..bytes.len()).collect();
    }
    let seed = seed(bytes);
    let place = |n: u64| (seed.rotate_left(8 * n as u32) % bytes.len() as u64) as usize;
    // Ends of heads and chunks are at the end more often than elsewhere.
    (0..CUTS).map(place).chain(bytes.len() - 4..bytes.len()).collect()
}

/// The bytes in pieces of one to eight.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = seed(bytes);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (piece, tail) = rest.split_at(rest.len().min(1 + (state >> 61) as usize));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A number made of the bytes (FNV-1a).
fn seed(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
