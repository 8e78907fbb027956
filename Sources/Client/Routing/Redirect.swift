public import Core

/// Where a redirect points: a node, and the request target there.
package struct Redirect: Hashable, Sendable {
    package let address: NodeAddress
    /// Origin form.
    package let target: String

    /// Reads a `Location`: an absolute `http` URL, or a path on the node that answered.
    ///
    /// nil where it is neither, or its authority is no `host:port`; a missing port is 80.
    package init?(location: String, from origin: NodeAddress) {
        if location.first == "/", !location.hasPrefix("//") {
            self.init(address: origin, target: location)
            return
        }
        guard let url = HTTPURL(location) else { return nil }
        self.init(address: url.address, target: url.target)
    }

    init(address: NodeAddress, target: String) {
        self.address = address
        self.target = target
    }
}

/// An absolute URL of scheme `http`, taken apart; without user information and fragment.
struct HTTPURL: Hashable, Sendable {
    let address: NodeAddress
    /// Path and query; `/` where the URL has none.
    let target: String

    init?(_ text: String) {
        let scheme = "http://"
        guard text.utf8.count > scheme.utf8.count, text.prefix(scheme.count).lowercased() == scheme else { return nil }
        let rest = text.dropFirst(scheme.count)
        let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        guard let address = NodeAddress(authority) ?? NodeAddress("\(authority):80") else { return nil }
        let path = rest[authority.endIndex...].prefix { $0 != "#" }
        self.address = address
        self.target = path.first == "/" ? String(path) : "/\(path)"
    }
}

/// Where a cluster can be found.
public enum SeedList {
    /// Reads a comma-separated list of routers or nodes, each `http://host:port` or `host:port`.
    ///
    /// Throws `KVError(.invalidArgument)` where the list is empty or an entry is neither.
    public static func parse(_ text: String) throws(KVError) -> [NodeAddress] {
        var seeds: [NodeAddress] = []
        for entry in text.split(separator: ",") {
            let entry = String(entry.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
            guard let seed = entry.contains("://") ? HTTPURL(entry)?.address : NodeAddress(entry) else {
                throw KVError(
                    .invalidArgument, "\"\(entry)\" is no router or node: write http://host:port or host:port")
            }
            if !seeds.contains(seed) { seeds.append(seed) }
        }
        guard !seeds.isEmpty else {
            throw KVError(.invalidArgument, "no router or node is named: write http://host:port or host:port")
        }
        return seeds
    }
}
