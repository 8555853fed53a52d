// Runs once, when the data folder is empty, as the root user: the pipeline's own user, with rights on its own database only.
const name = process.env.MONGODB_DATABASE || "gpu_tokens";
db.getSiblingDB(name).createUser({
  user: "gpu_tokens",
  pwd: process.env.MONGO_APP_PASSWORD,
  roles: [{ role: "readWrite", db: name }],
});
