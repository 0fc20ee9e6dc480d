// The first handler of a new deployment; yours take its place.
export default (args) => ({ hello: args?.name ?? "world" });
