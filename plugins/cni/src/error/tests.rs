//! The numbers of the codes.

use super::*;

/// Rows: C32, C33
#[test]
fn codes_keep_their_numbers() {
    let named = [
        (Code::IncompatibleVersion, 1),
        (Code::UnsupportedField, 2),
        (Code::UnknownContainer, 3),
        (Code::InvalidEnvironment, 4),
        (Code::Io, 5),
        (Code::Decode, 6),
        (Code::InvalidConfig, 7),
        (Code::InvalidNetns, 8),
        (Code::TryAgainLater, 11),
        (Code::NotAvailable, 50),
        (Code::NotAvailableLimited, 51),
        (Code::PoolExhausted, 100),
        (Code::AddressUnavailable, 101),
        (Code::PortInUse, 102),
        (Code::StoreDamaged, 103),
        (Code::DaemonUnreachable, 104),
        (Code::Internal, 999),
    ];
    for (code, number) in named {
        assert_eq!(code.number(), number);
    }
    for number in 0..=1100 {
        let code = Code::from_number(number);
        assert_eq!(code.number(), number);
        let is_named = named.iter().any(|&(_, known)| known == number);
        assert_eq!(code != Code::Other(number), is_named, "{number}");
    }
}

#[test]
fn an_error_shows_its_cause_chain_once() {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("read the number")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let cause = "x".parse::<u8>().expect_err("not a number");
    let error = Error::caused(Code::Io, "cannot start", &Outer(cause));
    assert_eq!(error.to_string(), "cannot start: read the number: invalid digit found in string");
}
