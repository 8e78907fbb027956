public import HTTPServer
import NIOHTTP1
import Wire

/// The resources that every role has for those who operate it; all are read with GET or HEAD.
public enum OperatingResource: Sendable, Hashable {
    case healthz, readyz, status, topology, metrics
    /// The data API's description; see ``OpenAPI``.
    case openAPI

    /// What a request for such a resource comes to.
    public enum Request: Sendable {
        case resource(OperatingResource)
        /// 404 for another path, 405 for another method.
        case refused(HTTPResponse)
    }

    public static func requested(by request: HTTPRequest) -> Request {
        let resource: OperatingResource
        switch request.path {
        case APIPath.healthz: resource = .healthz
        case APIPath.readyz: resource = .readyz
        case APIPath.status: resource = .status
        case APIPath.topology: resource = .topology
        case APIPath.metrics: resource = .metrics
        case APIPath.openAPI: resource = .openAPI
        default: return .refused(HTTPResponse(unknownPath: request.path))
        }
        guard request.method == .GET || request.method == .HEAD else {
            return .refused(HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: "GET, HEAD"))
        }
        return .resource(resource)
    }
}
