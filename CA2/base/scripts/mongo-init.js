// Makes the replica set and its two users, from any state: nothing there, half made, all there, passwords changed, a member
// more than before. It signs in as the members do among themselves, with the keyfile, so it needs no user to begin with.
const members = process.env.MONGO_MEMBERS.split(",");
const key = encodeURIComponent(fs.readFileSync("/secret/keyfile", "utf8").replace(/\s/g, ""));
const database = process.env.MONGODB_DATABASE;
const uri = (hosts, options) => `mongodb://__system:${key}@${hosts}/admin?authSource=local&serverSelectionTimeoutMS=5000&${options}`;
const until = Date.now() + 10 * 60 * 1000;

function patiently(what, ask) {
  for (let last = ""; ; sleep(2000)) {
    try {
      const answer = ask(); // not `return ask()`: mongosh would wait for it outside of this try
      return answer;
    } catch (error) {
      if (Date.now() > until) throw new Error(`${what}: ${error.message}`);
      if (error.message !== last) print(`waiting: ${what}: ${(last = error.message)}`);
    }
  }
}

function configuration(host) {
  // The member's replica set configuration, null while it has none.
  const member = connect(uri(host, "directConnection=true"));
  try {
    return member.adminCommand({ replSetGetConfig: 1 }).config;
  } catch (error) {
    if (error.codeName === "NotYetInitialized") return null;
    throw error;
  }
}

let made = false;
for (const host of members) {
  const config = patiently(`${host} answers`, () => configuration(host));
  if (config !== null) made = true;
}
if (!made) {
  const config = { _id: "rs0", members: members.map((host, _id) => ({ _id, host })) };
  patiently("replica set made", () => connect(uri(members[0], "directConnection=true")).adminCommand({ replSetInitiate: config }));
  print(`replica set rs0 made of ${members.join(", ")}`);
}

const primary = patiently("a primary", () => {
  const db = connect(uri(members.join(","), "replicaSet=rs0"));
  if (!db.hello().isWritablePrimary) throw new Error("none elected yet");
  return db;
});

for (const host of members) {
  // One at a time: MongoDB allows a change of one voting member per configuration.
  patiently(`${host} is a member`, () => {
    const config = primary.adminCommand({ replSetGetConfig: 1 }).config;
    if (config.members.some((member) => member.host === host)) return;
    config.members.push({ _id: Math.max(...config.members.map((member) => member._id)) + 1, host });
    config.version += 1;
    primary.adminCommand({ replSetReconfig: config });
    print(`member ${host} added`);
  });
}

function user(db, name, pwd, roles) {
  if (db.getUser(name) === null) {
    db.createUser({ user: name, pwd, roles });
    print(`user ${name} made`);
  } else {
    db.updateUser(name, { pwd, roles });
  }
}
patiently("users", () => {
  user(primary.getSiblingDB("admin"), "root", process.env.ROOT_PASSWORD, ["root"]);
  // The pipeline's own user may read and write its own database only.
  user(primary.getSiblingDB(database), "gpu_tokens", process.env.APP_PASSWORD, [{ role: "readWrite", db: database }]);
});
print(`replica set rs0 and users are as they should be: ${members.join(", ")}`);
