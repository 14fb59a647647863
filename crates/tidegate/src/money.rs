//! [`Money`]: amounts in whole nano-units of a currency.

use std::fmt;
use std::str::FromStr;

/// A currency, by its code of three letters: `USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

/// An amount of a currency, in nano-units: billionths of a dollar, say. Never a float.
///
/// ```
/// use tidegate::Money;
///
/// let price: Money = "2.50 USD".parse()?;
/// assert_eq!(price.nanos(), 2_500_000_000);
/// assert_eq!(price.to_string(), "2.5 USD");
/// # Ok::<(), tidegate::MoneyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    nanos: u64,
    currency: Currency,
}

/// Nano-units in a unit.
const NANOS: u64 = 1_000_000_000;

impl Currency {
    /// US dollars.
    pub const USD: Self = Self(*b"USD");

    /// Its code.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl Money {
    /// So many nano-units of a currency.
    #[must_use]
    pub const fn from_nanos(nanos: u64, currency: Currency) -> Self {
        Self { nanos, currency }
    }

    /// The nano-units.
    #[must_use]
    pub const fn nanos(&self) -> u64 {
        self.nanos
    }

    /// The currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// The nano-units of a decimal number of units, such as `0.125` or `1_000`: exactly, or not at all.
    ///
    /// # Errors
    /// When the text is no such number, has more than nine decimal places, or is too large.
    pub fn parse_nanos(text: &str) -> Result<u64, MoneyError> {
        let error = || MoneyError { text: text.to_owned() };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| {
            let ends = [digits.bytes().next(), digits.bytes().last()];
            ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_digit()))
                && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        };
        if !is_number(whole) || !is_number(part) {
            return Err(error());
        }
        let part = part.replace('_', "");
        let part = part.trim_end_matches('0');
        if part.len() > 9 {
            return Err(error());
        }
        let whole: u64 = whole.replace('_', "").parse().map_err(|_| error())?;
        let part: u64 = format!("{part:0<9}").parse().map_err(|_| error())?;
        whole.checked_mul(NANOS).and_then(|nanos| nanos.checked_add(part)).ok_or_else(error)
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(CurrencyError { text: text.to_owned() }),
        }
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let error = || MoneyError { text: text.to_owned() };
        let (number, code) = text.trim().split_once(' ').ok_or_else(error)?;
        let currency = code.trim_start().parse().map_err(|_| error())?;
        Ok(Self { nanos: Self::parse_nanos(number)?, currency })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.nanos / NANOS, self.nanos % NANOS);
        let part = format!("{part:09}");
        match part.trim_end_matches('0') {
            "" => write!(f, "{whole} {}", self.currency),
            part => write!(f, "{whole}.{part} {}", self.currency),
        }
    }
}

/// A text is no currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrencyError {
    text: String,
}

impl fmt::Display for CurrencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a currency; give its code of three letters, such as `USD`",
            self.text
        )
    }
}

impl std::error::Error for CurrencyError {}

/// A text is no amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoneyError {
    text: String,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not an amount; write it as in `2.50 USD`, with at most nine decimal places",
            self.text
        )
    }
}

impl std::error::Error for MoneyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, nanos, written) in [
            ("2.50 USD", 2_500_000_000, "2.5 USD"),
            ("0.000000001 EUR", 1, "0.000000001 EUR"),
            ("1_000 USD", 1_000_000_000_000, "1000 USD"),
            ("0 USD", 0, "0 USD"),
            ("18446744073.709551615 USD", u64::MAX, "18446744073.709551615 USD"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!((money.nanos(), money.to_string()), (nanos, written.to_owned()));
            assert_eq!(written.parse::<Money>().unwrap(), money);
        }
    }

    #[test]
    fn an_amount_that_does_not_fit_is_refused() {
        assert_eq!(Money::parse_nanos("18446744073.709551615"), Ok(u64::MAX));
        for text in
            ["18446744073.709551616", "18446744074", "100_000_000_000", "18446744073709551615"]
        {
            assert!(Money::parse_nanos(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "USD",
            "2.50",
            "2.50USD",
            "2,50 USD",
            "-1 USD",
            "1e3 USD",
            ".5 USD",
            "5. USD",
            "1 usd",
            "1 DOLLAR",
            "0.0000000001 USD",
            "18446744073.709551616 USD",
            "_1 USD",
        ] {
            let error = text.parse::<Money>().unwrap_err().to_string();
            assert!(error.contains("`2.50 USD`"), "{text}: {error}");
        }
    }
}
