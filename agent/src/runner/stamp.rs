//! Lines that begin with a time.

/// What follows a time stamp of this shape, in which a `0` stands for each digit.
pub fn after<'a>(line: &'a str, shape: &str) -> Option<&'a str> {
    let stamp = line.as_bytes().get(..shape.len())?;
    let fits = stamp
        .iter()
        .zip(shape.as_bytes())
        .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape });
    // Only ASCII so far, so that this is a character's beginning.
    fits.then(|| line.get(shape.len()..)).flatten()
}
