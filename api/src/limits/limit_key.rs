//! Who is counted by a limit.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use sha2::{Digest as _, Sha256};
use shared::domain::{order::CustomerId, tenant::TenantId};

/// Who is counted by a limit. An address can only be counted by its network.
#[derive(Clone, Copy, Debug)]
pub enum LimitKey<'a> {
    /// Everybody who calls from a network.
    Network(Network),
    /// A customer of a tenant, from any address.
    Customer(TenantId, CustomerId),
    /// All callers of a tenant.
    Tenant(TenantId),
    /// Attempts at the account of an e-mail address, from any address.
    Account(&'a str),
    /// Attempts at the account of an e-mail address from one network.
    AccountFromNetwork(&'a str, Network),
}

/// The addresses that one client controls: a single IPv4 address, or the /64 that an IPv6 client has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        // A socket of both families sees IPv4 clients as `::ffff:1.2.3.4`, all of which share one /64.
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

impl fmt::Display for LimitKey<'_> {
    /// As part of a key in Redis, which must not hold e-mail addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            // The version before, which may run beside this one, knows only the default tenant.
            Self::Customer(TenantId::DEFAULT, customer) => write!(f, "{customer}"),
            Self::Customer(tenant, customer) => write!(f, "{tenant}:{customer}"),
            Self::Tenant(tenant) => write!(f, "{tenant}"),
            Self::Account(email) => write_fingerprint(email, f),
            Self::AccountFromNetwork(email, network) => {
                write_fingerprint(email, f)?;
                write!(f, ":{network}")
            }
        }
    }
}

fn write_fingerprint(email: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    Sha256::digest(email.as_bytes()).iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> String {
        Network::from(address.parse::<IpAddr>().unwrap()).to_string()
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_an_ipv4_client_its_address_however_it_is_written() {
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn customers_of_two_tenants_with_one_number_are_counted_apart() {
        let customer = |tenant: i32| LimitKey::Customer(tenant.try_into().unwrap(), 5.try_into().unwrap());
        assert_eq!(customer(1).to_string(), "5", "as the version before counts it");
        assert_eq!(customer(2).to_string(), "2:5");
        assert_eq!(LimitKey::Tenant(2.try_into().unwrap()).to_string(), "2");
    }

    #[test]
    fn every_key_with_an_address_is_counted_by_its_network_and_shows_no_e_mail() {
        let email = "ada@example.com";
        let near = ["2001:db8::1", "2001:db8::2"].map(|text| Network::from(text.parse::<IpAddr>().unwrap()));
        for keys in
            [near.map(LimitKey::Network), near.map(|network| LimitKey::AccountFromNetwork(email, network))]
        {
            let [one, other] = keys.map(|key| key.to_string());
            assert_eq!(one, other);
            assert!(!one.contains("ada") && one.ends_with("2001:db8::/64"), "{one}");
        }
        let account = LimitKey::Account(email).to_string();
        assert!(account.len() == 64 && account.bytes().all(|byte| byte.is_ascii_hexdigit()), "{account}");
    }
}
