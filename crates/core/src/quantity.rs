//! Kubernetes quantities: `128Mi` of memory, `500m` of a processor.
//!
//! Source: the Kubernetes API's `resource.Quantity` (decimal, binary and milli suffixes, exponents).

/// Bytes of a memory quantity, rounded up. `None` if it is none or overflows.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let value = parse(text)?.ceil();
    (value <= i64::MAX as f64).then_some(value as u64)
}

/// Thousandths of a processor of a cpu quantity, rounded up. `None` if it is none or overflows.
#[must_use]
pub fn parse_millicores(text: &str) -> Option<u32> {
    let value = (parse(text)? * 1000.0).ceil();
    (value <= f64::from(u32::MAX)).then_some(value as u32)
}

fn parse(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some(number * factor(suffix)?)
}

fn factor(suffix: &str) -> Option<f64> {
    let binary = |power: i32| 1024f64.powi(power);
    Some(match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            10f64.powi(exponent)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        assert_eq!(parse_bytes("128Mi"), Some(128 << 20));
        assert_eq!(parse_bytes("1G"), Some(1_000_000_000));
        assert_eq!(parse_bytes("1e3"), Some(1000));
        assert_eq!(parse_bytes("1.5Ki"), Some(1536));
        assert_eq!(parse_bytes("100m"), Some(1));
        assert_eq!(parse_bytes("0"), Some(0));
        for bad in ["", "Mi", "-1", "1MiB", "1e99", "NaN", "inf"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpu() {
        assert_eq!(parse_millicores("100m"), Some(100));
        assert_eq!(parse_millicores("2"), Some(2000));
        assert_eq!(parse_millicores("0.5"), Some(500));
        assert_eq!(parse_millicores("half"), None);
    }
}
