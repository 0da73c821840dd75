//! Ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses of one family, first and last included: `10.89.0.224-10.89.0.254`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// From the first to the last, which are of one family and in order.
    #[must_use]
    pub(crate) const fn new(first: IpAddr, last: IpAddr) -> Self {
        Self { first, last }
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// Whether these are addresses of IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// All of them, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let last = self.last;
        std::iter::successors(Some(self.first), move |one| {
            (*one < last).then(|| match one {
                IpAddr::V4(one) => IpAddr::V4((u32::from(*one) + 1).into()),
                IpAddr::V6(one) => IpAddr::V6((u128::from(*one) + 1).into()),
            })
        })
    }

    /// The address at this distance from the start of a network that is large enough.
    pub(crate) fn nth(network: &IpNet, n: u32) -> IpAddr {
        match network {
            IpNet::V4(network) => IpAddr::V4((u32::from(network.network()) | n).into()),
            IpNet::V6(network) => {
                IpAddr::V6((u128::from(network.network()) | u128::from(n)).into())
            }
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no range of addresses: write FIRST-LAST");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| wrong());
        let (first, last) = (parse(first)?, parse(last)?);
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_and_read() {
        for text in ["10.89.0.224-10.89.0.254", "fd00::ff00-fd00::fffe", "10.0.0.1-10.0.0.1"] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.to_string(), text);
        }
        for text in ["10.89.0.224", "10.0.0.2-10.0.0.1", "10.0.0.1-fd00::1", "a-b"] {
            text.parse::<AddressRange>().unwrap_err();
        }
    }

    #[test]
    fn a_range_has_its_ends_and_only_its_family() {
        let range: AddressRange = "10.0.0.254-10.0.1.1".parse().unwrap();
        let all: Vec<String> = range.addresses().map(|one| one.to_string()).collect();
        assert_eq!(all, ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]);
        assert!(range.addresses().all(|one| range.contains(one)));
        for other in ["10.0.0.253", "10.0.1.2", "::a00:ff"] {
            assert!(!range.contains(other.parse().unwrap()), "{other}");
        }
    }
}
