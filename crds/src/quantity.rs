//! Kubernetes quantities (`2Gi`, `512Mi`, `1500M`), read exactly.
//!
//! The text is kept as it was written, since an object that is read and written back must not change. Arithmetic is
//! integer only: what isn't a whole number of bytes, or of the unit that Proxmox takes, is an error and never rounded.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Bytes in a MiB, the unit of Proxmox for memory.
pub const MEBIBYTE: u64 = 1 << 20;
/// Bytes in a GiB, the unit of Proxmox for a new volume.
pub const GIBIBYTE: u64 = 1 << 30;

/// The same expression as in the schema: digits, an optional fraction, an optional suffix.
pub(crate) const PATTERN: &str = r"^[0-9]{1,20}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
/// Twenty digits (as many as a `u64` has), a point, nine digits and a suffix fit.
pub(crate) const MAX_LENGTH: u32 = 32;

/// An amount of memory or disk as a Kubernetes quantity.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(transparent)]
pub struct Quantity(String);

/// Why a quantity can't be used.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// Not a quantity at all.
    #[error("`{0}` is not a quantity: write a number and a unit, such as 512Mi or 100Gi")]
    Malformed(String),
    /// A fraction of a byte.
    #[error("`{0}` is not a whole number of bytes")]
    FractionOfByte(String),
    /// More than can be counted.
    #[error("`{0}` is too large")]
    TooLarge(String),
    /// Not a multiple of the unit that Proxmox takes.
    #[error("`{text}` is not a whole number of {unit}: write it in {unit}")]
    NotWhole {
        /// The quantity as written.
        text: String,
        /// `MiB` or `GiB`.
        unit: &'static str,
    },
}

impl Quantity {
    /// A whole number of MiB, written in the largest binary unit that needs no fraction.
    pub fn from_mebibytes(mebibytes: u64) -> Self {
        if mebibytes != 0 && mebibytes.is_multiple_of(1024) {
            Self::from_gibibytes(mebibytes / 1024)
        } else {
            Self(format!("{mebibytes}Mi"))
        }
    }

    /// A whole number of GiB, written as `…Gi`.
    pub fn from_gibibytes(gibibytes: u64) -> Self {
        Self(format!("{gibibytes}Gi"))
    }

    /// A number of bytes, written in the largest of `Gi`, `Mi`, `Ki` that needs no fraction.
    pub fn from_bytes(bytes: u64) -> Self {
        for (unit, suffix) in [(GIBIBYTE, "Gi"), (MEBIBYTE, "Mi"), (1 << 10, "Ki")] {
            if bytes != 0 && bytes.is_multiple_of(unit) {
                return Self(format!("{}{suffix}", bytes / unit));
            }
        }
        Self(bytes.to_string())
    }

    /// The quantity as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of bytes, if it is a whole one.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        parse(&self.0)
    }

    /// The number of MiB, if it is a whole one.
    pub fn mebibytes(&self) -> Result<u64, QuantityError> {
        self.whole(MEBIBYTE, "MiB")
    }

    /// The number of GiB, if it is a whole one.
    pub fn gibibytes(&self) -> Result<u64, QuantityError> {
        self.whole(GIBIBYTE, "GiB")
    }

    fn whole(&self, unit: u64, name: &'static str) -> Result<u64, QuantityError> {
        let bytes = self.bytes()?;
        if bytes.is_multiple_of(unit) {
            Ok(bytes / unit)
        } else {
            Err(QuantityError::NotWhole {
                text: self.0.clone(),
                unit: name,
            })
        }
    }
}

/// Reads a quantity with integers only: the digits without their point are one number, and each digit behind the point
/// divides by ten, which must come out even.
fn parse(text: &str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(text.to_owned());
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u128 = match suffix {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        _ => return Err(malformed()),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(malformed()),
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() || fraction.contains('.') {
        return Err(malformed());
    }
    if whole.len() > 20 || fraction.len() > 9 {
        return Err(QuantityError::TooLarge(text.to_owned()));
    }
    // At most 29 digits times 2^50 can be above 2^128, hence the checked product.
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| malformed())?;
    let divisor = fraction.bytes().fold(1_u128, |product, _| product * 10);
    let scaled = digits
        .checked_mul(unit)
        .ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
    if scaled % divisor != 0 {
        return Err(QuantityError::FractionOfByte(text.to_owned()));
    }
    u64::try_from(scaled / divisor).map_err(|_| QuantityError::TooLarge(text.to_owned()))
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// Takes any text and any integer: a stored object must never fail to decode, so what it says is read on use.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrInteger;

        impl Visitor<'_> for TextOrInteger {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity, such as 512Mi, or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Quantity, E> {
                Ok(Quantity(bytes.to_string()))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Quantity, E> {
                Ok(Quantity(bytes.to_string()))
            }
        }

        deserializer.deserialize_any(TextOrInteger)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true,
            "maxLength": MAX_LENGTH,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GIBIBYTE, MEBIBYTE, PATTERN, Quantity, QuantityError};

    fn quantity(text: &str) -> Result<Quantity, QuantityError> {
        text.parse()
    }

    #[test]
    fn suffixes_are_those_of_kubernetes() {
        let bytes = |text| quantity(text).unwrap().bytes().unwrap();
        assert_eq!(bytes("7"), 7);
        assert_eq!(bytes("2k"), 2_000);
        assert_eq!(bytes("2Ki"), 2_048);
        assert_eq!(bytes("3M"), 3_000_000);
        assert_eq!(bytes("512Mi"), 512 * MEBIBYTE);
        assert_eq!(bytes("1.5Gi"), 1_610_612_736);
        assert_eq!(bytes("0.5T"), 500_000_000_000);
        assert_eq!(bytes("1Pi"), 1 << 50);
    }

    #[test]
    fn what_does_not_come_out_even_is_an_error() {
        assert_eq!(
            quantity("0.3").unwrap_err(),
            QuantityError::FractionOfByte("0.3".to_owned())
        );
        let not_whole = |text: &str, unit| {
            Err(QuantityError::NotWhole {
                text: text.to_owned(),
                unit,
            })
        };
        assert_eq!(quantity("1G").unwrap().mebibytes(), not_whole("1G", "MiB"));
        assert_eq!(
            quantity("1.5Gi").unwrap().gibibytes(),
            not_whole("1.5Gi", "GiB")
        );
        assert_eq!(quantity("1.5Gi").unwrap().mebibytes(), Ok(1536));
        assert_eq!(
            quantity("99999999999999999999P").unwrap_err(),
            QuantityError::TooLarge("99999999999999999999P".to_owned())
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Gi",
            "-1Gi",
            "1 Gi",
            "1gb",
            "1.",
            ".5Gi",
            "1.2.3",
            "1e3",
            "1KiB",
            "\u{661}Gi",
        ] {
            assert_eq!(
                quantity(text),
                Err(QuantityError::Malformed(text.to_owned())),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_are_kept(bytes: u64) {
            prop_assert_eq!(Quantity::from_bytes(bytes).bytes(), Ok(bytes));
        }

        #[test]
        fn mebibytes_are_kept(mebibytes in 0..u64::MAX / MEBIBYTE) {
            prop_assert_eq!(Quantity::from_mebibytes(mebibytes).mebibytes(), Ok(mebibytes));
        }

        #[test]
        fn gibibytes_are_kept(gibibytes in 0..u64::MAX / GIBIBYTE) {
            prop_assert_eq!(Quantity::from_gibibytes(gibibytes).gibibytes(), Ok(gibibytes));
        }

        #[test]
        fn a_fraction_counts_as_the_smaller_unit_does(whole in 0..1_000_000_u64, quarter in 0..4_u64) {
            let text = format!("{whole}.{:02}Gi", quarter * 25);
            prop_assert_eq!(quantity(&text).unwrap().mebibytes(), Ok(whole * 1024 + quarter * 256));
        }

        #[test]
        fn the_schema_lets_in_what_can_be_read(text in "[0-9]{0,21}(\\.[0-9]{0,10})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|m|E)?") {
            let let_in = regex::Regex::new(PATTERN).unwrap().is_match(&text);
            let read = quantity(&text);
            let arithmetic = matches!(read, Err(QuantityError::FractionOfByte(_) | QuantityError::TooLarge(_)));
            prop_assert!(if let_in { read.is_ok() || arithmetic } else { read.is_err() }, "{} {:?}", text, read);
        }
    }
}
