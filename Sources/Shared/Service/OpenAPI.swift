public import HTTPServer
import NIOCore
import Wire

/// The description of the data API that routers and nodes serve: `openapi.json` in this folder, OpenAPI 3.1.
public enum OpenAPI {
    /// 200 with the document.
    public static let response = HTTPResponse(
        status: 200, headers: [(name: "content-type", value: MediaType.json)],
        body: ByteBuffer(bytes: PackageResources.openapi_json))
}
