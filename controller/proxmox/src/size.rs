//! Sizes as Proxmox writes them: a number and a binary unit, `8G`, `512M`, `1T`.

/// Bytes of a size text: a number, with a fraction or without, and `K`, `M`, `G` or `T` (powers of 1024) or no unit. `None`
/// where the text is no size or exceeds 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let bytes = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(bytes);
    }
    // Nine digits of a fraction are more than a byte of a tebibyte needs.
    let digits: String = fraction.chars().take(9).collect();
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part = digits.parse::<u128>().ok()? * (1_u128 << shift) / scale;
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// A size in whole GiB, written as Proxmox reads it.
pub fn render_gib(gib: u64) -> String {
    format!("{gib}G")
}

#[cfg(test)]
mod tests {
    use super::{parse_size, render_gib};
    use proptest::prelude::*;

    #[test]
    fn reads_every_form_that_proxmox_writes() {
        for (text, bytes) in [
            ("8G", Some(8 << 30)),
            ("512M", Some(512 << 20)),
            ("1T", Some(1 << 40)),
            ("4096K", Some(4 << 20)),
            ("1.5G", Some(3 << 29)),
            ("0", Some(0)),
            ("100", Some(100)),
            ("", None),
            ("G", None),
            ("1.G", None),
            ("8GB", None),
            ("-1G", None),
            ("99999999999T", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_gib_survive(gib in 0_u64..1 << 33) {
            prop_assert_eq!(parse_size(&render_gib(gib)), Some(gib << 30));
        }
    }
}
