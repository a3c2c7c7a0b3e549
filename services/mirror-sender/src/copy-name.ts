/** Which copy is meant: its ingress, and the ingress's number for it. */
export interface CopyName {
  readonly ingress: string;
  readonly copy: number;
}
