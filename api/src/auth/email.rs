//! E-mail addresses of accounts, normalised so that one address cannot have two accounts by two spellings.

use std::str::FromStr;

/// The longest address that mail can be sent to (RFC 5321, section 4.5.3.1.3, less the angle brackets).
const MAX_BYTES: usize = 254;

/// A valid address in lower case: by the rule of HTML's `<input type=email>`, with a dot in the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// A text is not an e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an email address such as name@example.com, of at most 254 characters")]
pub struct EmailParseError;

impl Email {
    /// The address as it is stored and compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = EmailParseError;

    fn from_str(text: &str) -> Result<Self, EmailParseError> {
        let text = text.trim();
        let (local, domain) = text.split_once('@').ok_or(EmailParseError)?;
        let local_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
        let local_fits = (1..=64).contains(&local.len()) && local.bytes().all(local_byte);
        let domain_fits = domain.contains('.') && domain.split('.').all(is_label);
        if text.len() <= MAX_BYTES && local_fits && domain_fits {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(EmailParseError)
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_address_are_equal() {
        for text in ["ada@example.com", " Ada@Example.COM\n", "ADA@EXAMPLE.com"] {
            assert_eq!(text.parse::<Email>().unwrap().as_str(), "ada@example.com");
        }
        assert!("a.b+tag!#$%&'*/=?^_`{|}~-@sub.example-1.museum".parse::<Email>().is_ok());
    }

    #[test]
    fn a_text_that_is_not_an_address_is_refused() {
        let long = format!("a@{}.com", "b".repeat(63).repeat(4));
        let local = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@example",
            "a@b@example.com",
            "a b@example.com",
            "ada@-x.com",
            "ada@x-.com",
            "ada@x..com",
            "ada@.com",
            "ada@example.com.",
            "adä@example.com",
            "a\0@example.com",
            long.as_str(),
            local.as_str(),
        ] {
            assert_eq!(text.parse::<Email>(), Err(EmailParseError), "{text:?}");
        }
    }
}
