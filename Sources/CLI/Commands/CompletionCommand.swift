import ArgumentParser
import NIOCore

struct CompletionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completion",
        abstract: "Prints a script that completes kv's commands and options in a shell.",
        discussion: """
            EXAMPLES
              kv completion bash > ~/.local/share/bash-completion/completions/kv
              kv completion zsh > "${fpath[1]}/_kv"
              kv completion fish > ~/.config/fish/completions/kv.fish
            """)

    @Argument(help: "bash, zsh or fish.", completion: .list(["bash", "zsh", "fish"]), transform: Self.shell)
    var shell: CompletionShell

    func run() async throws {
        try await Console.write(ByteBuffer(string: KV.completionScript(for: shell) + "\n"))
    }

    private static func shell(_ name: String) throws -> CompletionShell {
        guard let shell = CompletionShell(rawValue: name) else {
            throw ValidationError("\"\(name)\" is none of bash, zsh and fish.")
        }
        return shell
    }
}
