// Reads the digits in image files with a Scanline server, and prints a line of JSON a file.
//
//     npm ci
//     node classify.js seven.png four.jpg
//     node classify.js --server digits.example:50051 --roots ca.pem --token-file token scans/*.png
//
// Options are read first. Exit code: 0 done, 1 a file could not be read or there is no answer, 2 wrong use.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const TIMEOUT_MS = 30_000;
// What one call holds here, at most; the server says in GetModel what it takes. A larger file goes alone.
const FILES_A_CALL = 64;
const BYTES_A_CALL = 3 * 2 ** 20;
// gRPC itself repeats what fails for the moment, and comes back to a full server when that says so.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "scanline.v1.Digits" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "5s",
        backoffMultiplier: 3,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

// An unknown option, a file of --roots or --token-file that can't be used: a line, not a stack.
process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(2);
});

const { values: options, positionals: paths } = parseArgs({
  options: {
    server: { type: "string", default: "127.0.0.1:50051" },
    roots: { type: "string" },
    "token-file": { type: "string" },
    help: { type: "boolean" },
  },
  allowPositionals: true,
});

const USAGE = "usage: node classify.js [--server HOST:PORT] [--roots CA.PEM] [--token-file FILE] FILE ...";
if (options.help) {
  console.log(USAGE);
  process.exit(0);
}
if (!paths.length) {
  console.error(USAGE);
  process.exit(2);
}

function read(option) {
  try {
    return readFileSync(options[option]);
  } catch (error) {
    throw new Error(`can't read --${option} ${options[option]}: ${error.message}`);
  }
}

const definition = loader.loadSync("scanline/v1/digits.proto", { includeDirs: [PROTOS], enums: String, defaults: true });
const { Digits } = grpc.loadPackageDefinition(definition).scanline.v1;
const credentials = options.roots
  ? grpc.credentials.createSsl(read("roots"))
  : grpc.credentials.createInsecure();
const client = new Digits(options.server, credentials, { "grpc.service_config": JSON.stringify(SERVICE_CONFIG) });
const metadata = new grpc.Metadata();
if (options["token-file"]) {
  metadata.set("authorization", `Bearer ${read("token-file").toString().trim()}`);
}

function classify(files) {
  const deadline = Date.now() + TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    client.classify({ files: { files } }, metadata, { deadline }, (error, response) =>
      error ? reject(error) : resolve(response.predictions),
    );
  });
}

function print(path, answer) {
  console.log(JSON.stringify({ path, ...answer }));
  if (answer.error) process.exitCode = 1;
}

// Gives the files in lots, one for each call. A file that can't be read is said at once.
function* lots() {
  let lot = [];
  let bytes = 0;
  for (const path of paths) {
    let content;
    try {
      content = readFileSync(path);
    } catch (error) {
      print(path, { error: error.message });
      continue;
    }
    if (lot.length === FILES_A_CALL || (lot.length && bytes + content.length > BYTES_A_CALL)) {
      yield lot;
      lot = [];
      bytes = 0;
    }
    lot.push({ path, content });
    bytes += content.length;
  }
  if (lot.length) yield lot;
}

try {
  for (const lot of lots()) {
    const predictions = await classify(lot.map(({ content }) => content));
    predictions.forEach(({ digit, confidence, rejected, reason, error }, index) => {
      print(lot[index].path, error ? { error } : { digit, confidence, ...(rejected && { rejected: reason }) });
    });
  }
} catch (error) {
  console.error(`no answer from ${options.server}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
